"""The HTTP service: imprompt's own API, the endpoints that other tools' clients call, and the page."""
