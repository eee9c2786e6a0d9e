package engine

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Tokens are the hashes of the tokens of which a client must have one.
type Tokens [][sha256.Size]byte

// HashTokens returns the hashes of tokens.
func HashTokens(tokens []string) (all Tokens) {
	for _, token := range tokens {
		all = append(all, sha256.Sum256([]byte(token)))
	}
	return all
}

// Have reports whether a token is one of those wanted, in a time that does not depend on them.
func (t Tokens) Have(token string) bool {
	sum, known := sha256.Sum256([]byte(token)), 0
	for i := range t {
		known |= subtle.ConstantTimeCompare(sum[:], t[i][:])
	}
	return known == 1
}
