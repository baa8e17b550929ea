//! Configuration of programs that speak MCP.
