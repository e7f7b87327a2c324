"""`agentsight doctor`: look at an instance from inside and outside, and say what to change."""
