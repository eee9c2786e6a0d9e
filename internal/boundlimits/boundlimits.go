// Package boundlimits is how middleware reads the limits of a trypema.Bound without a copy for each request.
package boundlimits

// Of returns the limits that a *trypema.Bound has now, as a *[]trypema.Limit that must not be changed.
// Package trypema sets it.
var Of func(bound any) any
