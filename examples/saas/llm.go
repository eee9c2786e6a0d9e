package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	longestAnswer = 2 * time.Minute // its estimate is free again after that
	mostTokens    = 100             // of an answer
)

// estimate is the most tokens that a request can cost: those of the question, and those that the answer may
// have.
func estimate(r *http.Request) uint64 {
	return uint64(len(question(r))) + most(r)
}

func question(r *http.Request) []string { return strings.Fields(r.FormValue("question")) }

func most(r *http.Request) uint64 {
	n, err := strconv.ParseUint(r.FormValue("max"), 10, 64)
	if err != nil {
		return mostTokens
	}
	return min(n, mostTokens)
}

// answer streams an answer, and reports each token. What was reported takes the place of the estimate when it
// returns, also if the client hangs up.
func (s *service) answer(w http.ResponseWriter, r *http.Request) {
	asked := question(r)
	s.tokens.Spent(r.Context(), uint64(len(asked)))
	for _, token := range asked[:min(len(asked), int(most(r)))] { // a model that says what it was asked
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second / 20):
		}
		s.tokens.Spent(r.Context(), 1)
		fmt.Fprintln(w, token)
		_ = http.NewResponseController(w).Flush() // to a client that has gone, perhaps
	}
}
