"""3D heads to images on a pose grid."""
