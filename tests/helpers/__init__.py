"""What tests share: servers, clients, tables and crafted files."""
