"""Compare rows with objects, in both directions, and mend what can be mended."""
