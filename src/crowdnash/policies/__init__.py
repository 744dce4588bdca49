"""What an agent does: tables and networks, and what a policy is told of whom it acts for."""
