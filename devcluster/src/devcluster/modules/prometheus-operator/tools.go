//go:build tools

// Package tools imports nothing: of this module, only the CRDs are used.
package tools
