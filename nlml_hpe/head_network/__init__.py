"""The head detector's network, and how it is trained; what finds heads with it is ``nlml_hpe.detection.heads``."""
