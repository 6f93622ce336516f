"""Reports as pages: one HTML file with everything about a network, without network access."""
