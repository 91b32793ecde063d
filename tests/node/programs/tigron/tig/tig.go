// Package tig takes the place of a package of nerdctl's test framework, which nerdctl's own module replaces by a
// folder beside it and no module proxy has. The program links it only because one of its helpers names this type.
package tig

// T is the little of testing.T that is named.
type T interface {
	Helper()
	FailNow()
	Log(args ...any)
	TempDir() string
}
