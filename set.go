package trypema

import "strconv"

// Condition is a comparison with the live total of a key, for [Limiter].Set. The zero value is Always().
type Condition struct {
	op    comparison
	total uint64
}

type comparison uint8

const (
	always comparison = iota
	equal
	notEqual
	less
	greater
)

// Always holds for every total.
func Always() Condition { return Condition{} }

// Equal holds when the live total is n. Equal(0) holds for a key that does not exist.
func Equal(n uint64) Condition { return Condition{equal, n} }

// NotEqual holds when the live total is not n.
func NotEqual(n uint64) Condition { return Condition{notEqual, n} }

// Less holds when the live total is below n.
func Less(n uint64) Condition { return Condition{less, n} }

// Greater holds when the live total is above n.
func Greater(n uint64) Condition { return Condition{greater, n} }

// Holds reports whether total meets the condition.
func (c Condition) Holds(total uint64) bool {
	switch c.op {
	case equal:
		return total == c.total
	case notEqual:
		return total != c.total
	case less:
		return total < c.total
	case greater:
		return total > c.total
	}
	return true
}

// String returns the condition as it is written in Go: "Less(5)".
func (c Condition) String() string {
	name := [...]string{"Always", "Equal", "NotEqual", "Less", "Greater"}[c.op]
	if c.op == always {
		return name + "()"
	}
	return name + "(" + strconv.FormatUint(c.total, 10) + ")"
}

// History says which recorded events stay when Set changes the total of a key.
type History uint8

const (
	// Replace forgets all events: the key then holds one group of total admitted events, made now.
	Replace History = iota
	// KeepNewest keeps the newest events and their times: a smaller total is reached by dropping the oldest,
	// a larger one by growing the newest group.
	KeepNewest
	// KeepOldest keeps the oldest events and their times: a smaller total is reached by dropping the newest,
	// a larger one by growing the oldest group.
	KeepOldest
)

// String returns the name of the constant.
func (h History) String() string {
	switch h {
	case Replace:
		return "Replace"
	case KeepNewest:
		return "KeepNewest"
	case KeepOldest:
		return "KeepOldest"
	}
	return "History(" + strconv.Itoa(int(h)) + ")"
}

// SetResult is the answer of Set.
type SetResult struct {
	// Matched reports whether the condition held, and so whether anything was written.
	Matched bool
	// Previous is the live total before: admitted plus declined.
	Previous uint64
	// Current is the live total after.
	Current uint64
}
