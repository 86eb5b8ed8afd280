"""What ``python -m smoothloss`` does: read a table, fit a line under each loss, report."""
