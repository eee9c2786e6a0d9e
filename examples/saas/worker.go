package main

import (
	"context"
	"log/slog"
	"net/http"
)

// mail is a job of the worker.
type mail struct{ tenant, to string }

// queueMail takes a mail, which is sent when it is its turn.
func (s *service) queueMail(w http.ResponseWriter, r *http.Request) {
	select {
	case s.mails <- mail{accountOf(r.Context()).tenant, r.FormValue("to")}:
		w.WriteHeader(http.StatusAccepted)
	default:
		http.Error(w, "there are too many mails to send", http.StatusServiceUnavailable)
	}
}

// sendMails sends one mail after the other, none before its turn, until there are no more or ctx ends. All
// instances of the service share the limit.
func (s *service) sendMails(ctx context.Context, logger *slog.Logger) {
	for {
		var m mail
		var more bool
		select {
		case m, more = <-s.mails:
		case <-ctx.Done():
		}
		if !more {
			return
		}
		if _, err := s.plans.Wait(ctx, "mail", "smtp"); err != nil {
			logger.Error("a mail was not sent", "tenant", m.tenant, "to", m.to, "error", err)
			continue
		}
		logger.Info("a mail was sent", "tenant", m.tenant, "to", m.to)
	}
}
