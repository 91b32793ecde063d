package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// A stage, each instruction as it reads when it is written in one line.
type stage struct {
	Name         string   `json:"name"`
	Base         string   `json:"base"`
	Instructions []string `json:"instructions"`
	// The shell commands of its RUN lines.
	Runs []string `json:"runs"`
}

func containerfile(path string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var objections []string
	for _, warning := range parsed.Warnings {
		objections = append(objections, warning.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, places []parser.Range) {
		objections = append(objections, fmt.Sprintf("%s: %s %v", rule, message, places))
	}})
	stages, arguments, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return nil, err
	}
	if len(objections) > 0 {
		return nil, fmt.Errorf("%s: %s", path, strings.Join(objections, "; "))
	}
	found := struct {
		Arguments []string `json:"arguments"`
		Stages    []stage  `json:"stages"`
	}{}
	for _, argument := range arguments {
		found.Arguments = append(found.Arguments, argument.String())
	}
	for _, one := range stages {
		made := stage{Name: one.Name, Base: one.BaseName}
		for _, command := range one.Commands {
			made.Instructions = append(made.Instructions, fmt.Sprint(command))
			if run, is := command.(*instructions.RunCommand); is {
				made.Runs = append(made.Runs, strings.Join(run.CmdLine, " "))
			}
		}
		found.Stages = append(found.Stages, made)
	}
	return found, nil
}
