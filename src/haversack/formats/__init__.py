"""Pure readers and writers of formats: ours and other people's."""
