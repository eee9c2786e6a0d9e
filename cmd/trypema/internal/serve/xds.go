package serve

import "context"

func (s *server) subscribe(context.Context) {}
