"""What a person sees: live progress, the board in the terminal, the report page. Decides nothing."""
