// Package terminal has what the command lines of the programs print: tables whose width fits the terminal, lines that
// show progress, and text from customers with everything escaped that a terminal would not show as it is.
package terminal
