"""The client of the model hub: what to fetch, the one gate to the network, downloads into the hub's own cache."""
