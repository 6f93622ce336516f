"""Networks side by side: their costs, and what differs between two of them."""
