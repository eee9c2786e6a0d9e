package redisproto

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
)

const (
	// MaxCapacity is the largest capacity that Redis can count with.
	MaxCapacity = Most - 1
	// Most is where counting ends: a quarter of 2⁵³, up to which the scripts know whole numbers.
	Most = 1 << 51
)

// MaxKeyLen keeps a key from filling Redis by itself.
const MaxKeyLen = 1 << 20

// CheckKey returns a trypema.ErrInvalidKey for a key that is not stored in Redis.
func CheckKey(key string) error {
	switch {
	case key == "":
		return invalid.Errorf(trypema.ErrInvalidKey, "key is empty; it must have at least one byte")
	case len(key) > MaxKeyLen:
		return invalid.Errorf(trypema.ErrInvalidKey, "key has %d bytes; it must have at most %d", len(key),
			MaxKeyLen)
	}
	return nil
}

// CheckHistory returns a trypema.ErrInvalidOptions for what is not a constant of trypema.History.
func CheckHistory(keep trypema.History) error {
	if keep > trypema.KeepOldest {
		return invalid.Errorf(trypema.ErrInvalidOptions,
			"history is %v; it must be Replace, KeepNewest or KeepOldest", keep)
	}
	return nil
}

// CheckTotal returns a trypema.ErrInvalidCost for a total that Redis can not count.
func CheckTotal(total uint64) error {
	if total > MaxCapacity {
		return invalid.Errorf(trypema.ErrInvalidCost,
			"total is %d; it must be at most %d, which is as far as Redis counts", total, uint64(MaxCapacity))
	}
	return nil
}

// ErrZeroCost is the trypema.ErrInvalidCost of a call that costs nothing.
var ErrZeroCost = invalid.Errorf(trypema.ErrInvalidCost, "cost is 0; it must be at least 1 (Peek takes 0)")

// CheckCalls returns what is wrong with calls that are decided together. check checks a key.
func CheckCalls(calls []trypema.Call, check func(key string) error) error {
	for i := range calls {
		err := check(calls[i].Key)
		switch {
		case errors.Is(err, trypema.ErrInvalidKey):
			return invalid.Errorf(trypema.ErrInvalidKey, "call %d: %s", i, strings.TrimPrefix(err.Error(), "trypema: "))
		case err != nil:
			return err
		case calls[i].Cost == 0:
			return invalid.Errorf(trypema.ErrInvalidCost, "call %d: cost is 0; it must be at least 1", i)
		}
	}
	return nil
}

// CheckReservation returns what is wrong with an estimate and an expiry.
func CheckReservation(estimate uint64, expiry time.Duration) error {
	switch {
	case estimate == 0:
		return ErrZeroCost
	case expiry < 0:
		return invalid.Errorf(trypema.ErrInvalidOptions, "expiry is %v; it must be 0 (none) or more", expiry)
	}
	return nil
}

// Capacity returns that of a window at a rate, at most MaxCapacity, or a trypema.ErrInvalidRate.
func Capacity(rate trypema.Rate, window time.Duration) (uint64, error) {
	c, err := rate.Capacity(window)
	return min(c, MaxCapacity), err
}

// CapacityOf returns that of a limit which was checked, at most MaxCapacity.
func CapacityOf(l trypema.Limit) uint64 {
	c, _ := l.Capacity()
	return min(c, MaxCapacity)
}

// GiveBackArgs returns the ARGV of set.lua that take up to n out of a window, the oldest events first.
func GiveBackArgs(n uint64, letter string) []string {
	return []string{
		trypema.Always().String(), "-" + strconv.FormatUint(min(n, Most), 10), trypema.KeepNewest.String(), letter,
	}
}

// SetArgs returns the ARGV of set.lua after those that every script begins with.
func SetArgs(when trypema.Condition, total uint64, keep trypema.History, letter string) []string {
	return []string{when.String(), strconv.FormatUint(total, 10), keep.String(), letter}
}
