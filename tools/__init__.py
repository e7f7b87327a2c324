"""Programs that make and check things of this repository; not part of the distribution."""
