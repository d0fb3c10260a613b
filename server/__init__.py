"""The HTTP server: its API, the web page, and the endpoints that other tools' clients call.

A request passes `middleware`, is parsed by a route (`v1`, `sdapi`, `knn_service`), becomes a job in
a queue (`service`, `micro_batches`), and is answered in a batch (`answering`) from the index
version in service (`snapshots`). `serving` starts it all.
"""
