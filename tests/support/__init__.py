"""Made inputs, damage, processes and checks that several test files share."""
