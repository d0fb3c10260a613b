"""The client of the model hub: what to fetch, and downloads into the hub's cache."""
