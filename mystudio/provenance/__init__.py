"""What a result says of its origin: signed claims, watermark and their check."""
