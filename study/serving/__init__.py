"""The HTTP server of a protected classifier: bounded, validated requests; replicas on Ray Serve."""
