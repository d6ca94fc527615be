"""What there is to do: scans in folders, globs, buckets and manifests, and the hints for them."""
