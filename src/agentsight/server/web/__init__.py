"""What every door shares: errors, bodies, the auth of requests, paging, public addresses."""
