"""Files of any size on their way in, over as many visits as it takes; messages refer to them."""
