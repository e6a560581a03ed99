"""Reading labelled images: which there are, which of them play which role, and decoding them with Ray Data."""
