"""What is said of a run that did not end well: `message` says what happened, `hint` what to do about it."""
