"""Numbers, arrays and tables for people, and for JSON; the one place where HTML is escaped."""
