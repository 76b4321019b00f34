"""What the tests stand on: servers, databases, a clock that obeys, and ways to wait for others."""
