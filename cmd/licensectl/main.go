// Command licensectl is the operator's tool of the licence accounting service. It talks to a gateway
// (--server).
//
//	acquire renew release play sync deactivate plan select  commands of a customer
//	licenses devices downloads                        what a customer holds
//	events state diff why try                         the past: history, state at a moment, and why
//	verify export import archive passivate forget audit  care of what is stored
//	node cluster top customers policy bench           the service
//
// Results go to stdout, as tables or with --output json; progress and errors go to stderr. What the exit
// codes mean is in exitCodes.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"licensed/internal/manpages"
	"licensed/internal/terminal"
	"licensed/internal/tlsfiles"
	"licensed/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	p := &program{
		stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, now: time.Now, newID: uuid.NewString,
		width: func() int { return terminal.Columns(os.Stdout) }, tells: terminal.Columns(os.Stderr) > 0,
		completion: time.Second,
	}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// program is the command line with all that it touches, so that tests run the real one.
type program struct {
	// Where results and errors go. run escapes control and format characters in ids and messages.
	stdout, stderr io.Writer
	// screen and progress are stdout and stderr as they are, for what moves the cursor and escapes by itself.
	screen, progress io.Writer
	getenv           func(string) string
	now              func() time.Time
	newID            func() string // of commands
	width            func() int    // of the terminal, 0 if there is none
	tells            bool          // progress, because somebody watches
	completion       time.Duration // how long a shell waits for what completes a word

	// Flags of all commands.
	server string
	tls    tlsfiles.Files
	// tokenFile has the bearer token, and reason is why the caller asks.
	tokenFile, reason string
	output            string
	timeout           time.Duration
	// The connection; nil until it is needed.
	loop *connection
}

// Values of --output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// defaultServer is where licensed dev listens.
const defaultServer = "127.0.0.1:8080"

// run executes a command line and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	// All output passes the escape of characters without a glyph: ids come from customers.
	p.screen, p.progress = p.stdout, p.stderr
	p.stdout, p.stderr = terminal.Writer(p.stdout), terminal.Writer(p.stderr)
	// Arguments go into protobuf strings, which must be UTF-8; the error would come from
	// deep inside.
	for _, a := range args {
		if !utf8.ValidString(a) {
			return p.report(usagef("argument %q is not UTF-8", a))
		}
	}
	root := p.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if p.loop != nil {
		_ = p.loop.Close() // Nothing is in progress any more.
	}
	if err == nil {
		return exitOK
	}
	return p.report(err)
}

// rootCommand returns the command line. Its help is the only place that lists the exit
// codes.
func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "licensectl",
		Short: "Operate a licence accounting service and explain its decisions",
		Long: "licensectl talks to the gateway of a licence accounting service: it gives commands, shows what\n" +
			"customers hold, and explains any moment of their history.\n\n" +
			"A MOMENT is the number of an event, a time (2026-03-01, \"2026-03-01 20:15\",\n" +
			"2026-03-01T20:15:00Z; UTC unless it says otherwise), a time ago (-36h, -7d) or now.\n\n" + exitCodes,
		Example: "  licensectl acquire Bayley iphone GlowS01E01\n  licensectl events Bayley\n" +
			"  licensectl why Bayley iphone GlowS01E01",
		Annotations:   map[string]string{textOnly: ""},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          exactArgs(),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if err := p.checkFlags(); err != nil {
				return err
			}
			return p.checkJSON(c)
		},
	}
	root.Version = version.Version()
	root.SetVersionTemplate(versionLine())
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w%s (see %s --help)", err, nearestFlag(c, err), c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVarP(&p.server, "server", "s", "",
		"`ADDRESS` of a gateway: HOST:PORT or URL (environment LICENSED_SERVER, default "+defaultServer+")")
	f.StringVar(&p.tls.CA, "tls-ca", "", "`FILE` with the CA of the gateway's certificate, "+
		"in PEM form (environment LICENSECTL_TLS_CA, default the system's)")
	f.StringVar(&p.tls.Cert, "tls-cert", "",
		"`FILE` with the certificate to show to a gateway that asks for one (environment LICENSECTL_TLS_CERT)")
	f.StringVar(&p.tls.Key, "tls-key", "", "`FILE` with its private key (environment LICENSECTL_TLS_KEY)")
	f.StringVar(&p.tls.CRL, "tls-crl", "", "`FILE` with the revocation lists of --tls-ca "+
		"(environment LICENSECTL_TLS_CRL, default none are checked)")
	f.StringVar(&p.tokenFile, "token-file", "", "`FILE` with the token that says who you are "+
		"(environment LICENSED_TOKEN_FILE, or the token itself in LICENSED_TOKEN)")
	f.StringVar(&p.reason, "reason", "", "`TEXT` why you do this, which is recorded; some calls of some roles need it")
	f.StringVarP(&p.output, "output", "o", outputTable, "`format` of the output: table or json")
	f.DurationVar(&p.timeout, "timeout", 15*time.Second,
		"longest time for one answer, more than a gateway takes at most (--max-deadline, 10s); streams have no limit")
	root.AddGroup(
		&cobra.Group{ID: "commands", Title: "Commands of a customer:"},
		&cobra.Group{ID: "holds", Title: "What a customer holds:"},
		&cobra.Group{ID: "past", Title: "History, state at a moment, and why:"},
		&cobra.Group{ID: "care", Title: "Maintenance of the stored data:"},
		&cobra.Group{ID: "service", Title: "The service:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("commands", p.acquireCommand(), p.renewCommand(), p.releaseCommand(), p.playCommand(),
		p.syncCommand(), p.deactivateCommand(), p.planCommand(), p.selectCommand(),
		p.exceptionCommand())
	add("holds", p.customerVerb(), p.licensesCommand(), p.devicesCommand(), p.downloadsCommand())
	add("past", p.eventsCommand(), p.stateCommand(), p.diffCommand(), p.whyCommand(), p.tryCommand())
	add("care", p.verifyCommand(), p.exportCommand(), p.importCommand(), p.archiveCommand(), p.passivateCommand(),
		p.forgetCommand(), p.auditCommand())
	add("service", p.nodeCommand(), p.clusterCommand(), p.topCommand(), p.customersCommand(), p.policyCommand(),
		p.benchCommand(), p.versionCommand())
	pages := manpages.Command("licensectl", p.getenv)
	pages.Args = exactArgs("DIR")
	pages.Annotations = map[string]string{textOnly: ""}
	root.AddCommand(pages)
	completeGenerated(root)
	return root
}

// completeGenerated has the commands that cobra adds refuse unknown words as all others do: they would print a help.
func completeGenerated(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				if of, rest, err := root.Find(args); err == nil && len(rest) > 0 {
					return unknownVerb(of, rest[0])
				}
				return nil
			}
		case "completion":
			c.Args, c.RunE = exactArgs(), func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
}

// checkFlags completes and checks the flags of all commands: a flag takes precedence over
// a variable, and that over the default. It runs before each verb; completion, which
// skips it, calls it itself.
func (p *program) checkFlags() error {
	if p.output != outputTable && p.output != outputJSON {
		return usagef("--output %q is not table or json", p.output)
	}
	if p.timeout <= 0 {
		return usagef("--timeout must be positive")
	}
	// Environment variables are read late, so that --help shows the documented defaults.
	p.server = cmp.Or(p.server, p.getenv("LICENSED_SERVER"), defaultServer)
	p.tokenFile = cmp.Or(p.tokenFile, p.getenv("LICENSED_TOKEN_FILE"))
	p.tls = p.filesOfTLS()
	return nil
}

// filesOfTLS returns the files of flags and variables. Without any it takes the variables that named them in earlier
// releases, and warns: licensed reads the same ones, so that they may name the certificate of a node.
func (p *program) filesOfTLS() tlsfiles.Files {
	files := tlsfiles.Files{
		CA:   cmp.Or(p.tls.CA, p.getenv("LICENSECTL_TLS_CA")),
		Cert: cmp.Or(p.tls.Cert, p.getenv("LICENSECTL_TLS_CERT")),
		Key:  cmp.Or(p.tls.Key, p.getenv("LICENSECTL_TLS_KEY")),
		CRL:  cmp.Or(p.tls.CRL, p.getenv("LICENSECTL_TLS_CRL")),
	}
	if files != (tlsfiles.Files{}) || strings.HasPrefix(p.server, "http://") {
		return files
	}
	files = tlsfiles.Files{
		CA: p.getenv("LICENSED_TLS_CA"), Cert: p.getenv("LICENSED_TLS_CERT"), Key: p.getenv("LICENSED_TLS_KEY"),
	}
	if files != (tlsfiles.Files{}) {
		fmt.Fprintln(p.stderr, "licensectl: warning: LICENSED_TLS_* are the files of licensed, and the next release "+
			"does not read them here; set LICENSECTL_TLS_CA, LICENSECTL_TLS_CERT and LICENSECTL_TLS_KEY")
	}
	return files
}

// textOnly is the annotation of commands without a JSON form; its value says what to use in place of them.
const textOnly = "text only"

// checkJSON refuses --output json for a command that would print something else. Commands that only have verbs print
// their help.
func (p *program) checkJSON(c *cobra.Command) error {
	instead, text := c.Annotations[textOnly]
	generated := c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion"
	if p.output != outputJSON || !text && !generated {
		return nil
	}
	return usagef("%s has no JSON form%s", c.CommandPath(), instead)
}

// nearestFlag returns the question whether another flag was meant by one that does not
// exist, or "".
func nearestFlag(c *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := terminal.Nearest(unknown.GetSpecifiedName(), names); near != "" {
		return "; did you mean --" + near + "?"
	}
	return ""
}

// unknownVerb is the error of a command that has verbs and was given another word.
func unknownVerb(c *cobra.Command, word string) error {
	var names []string
	for _, verb := range c.Commands() {
		names = append(names, verb.Name())
	}
	meant := ""
	if near := terminal.Nearest(word, names); near != "" {
		meant = fmt.Sprintf("; did you mean %s %s?", c.CommandPath(), near)
	}
	return usagef("%s has no command %q%s (see %s --help)", c.CommandPath(), word, meant, c.CommandPath())
}

// exactArgs demands these arguments, by their names in the usage line; one in brackets may be left out.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		required := 0
		for _, n := range names {
			if !strings.HasPrefix(n, "[") {
				required++
			}
		}
		switch {
		case len(args) < required:
			return usagef("%s is missing (see %s --help)", names[len(args)], c.CommandPath())
		case len(args) > len(names) && c.HasSubCommands():
			return unknownVerb(c, args[len(names)])
		case len(args) > len(names):
			return usagef("%s takes no argument %q (see %s --help)", c.CommandPath(), args[len(names)], c.CommandPath())
		}
		return nil
	}
}

// versionCommand returns the verb that needs no server.
func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Example: "  licensectl version",
		Args: exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			if p.output == outputJSON {
				return p.printJSON(map[string]string{"version": version.Version()})
			}
			_, err := fmt.Fprint(p.stdout, versionLine())
			return err
		},
	}
}

// versionLine is what version and --version print.
func versionLine() string { return "licensectl " + version.Version() + "\n" }

// call returns a context for one answer, with the time of --timeout.
func (p *program) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.timeout)
}

// errInterrupted ends a verb that a signal stopped before it had a result.
var errInterrupted = errors.New("interrupted")
