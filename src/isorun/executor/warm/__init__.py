"""What makes the copies of a warm interpreter cheap: decision 0025 says what each part relies on."""
