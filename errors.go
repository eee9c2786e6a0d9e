package trypema

import "errors"

// Sentinels for errors.Is. The error that is returned names the field, its value and the rule it breaks.
var (
	// ErrInvalidRate is a rate that is not a positive finite number (or Unlimited), or too small for the
	// window.
	ErrInvalidRate = errors.New("trypema: invalid rate")
	// ErrInvalidCost is a cost of 0 where something is to be recorded.
	ErrInvalidCost = errors.New("trypema: invalid cost")
	// ErrInvalidKey is a key that a provider cannot store.
	ErrInvalidKey = errors.New("trypema: invalid key")
	// ErrInvalidOptions is an option outside its bounds.
	ErrInvalidOptions = errors.New("trypema: invalid options")
	// ErrWouldExceedDeadline is a Wait whose turn comes after the deadline of its context.
	ErrWouldExceedDeadline = errors.New("trypema: the wait would exceed the deadline")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("trypema: closed")
)
