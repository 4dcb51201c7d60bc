"""Results as others write and read them: one file format a module. No bus, no pipeline; bytes in, rows out, and back."""
