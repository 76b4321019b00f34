"""A shop that takes orders, reserves stock, charges cards and ships, and survives whatever is killed meanwhile."""
