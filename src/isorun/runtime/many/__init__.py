"""Many runs of one Runtime: whose turn it is, and results in the order that was asked for."""
