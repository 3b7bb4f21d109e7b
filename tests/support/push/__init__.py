"""Push services of our own, for tests and benchmarks: what FCM, APNs and a browser's push service say, over TLS."""
