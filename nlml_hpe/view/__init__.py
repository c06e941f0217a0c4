"""Pictures: poses drawn on images, and plots."""
