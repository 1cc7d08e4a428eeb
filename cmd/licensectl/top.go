package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"licensed/internal/clusterrates"
	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// topCommand returns the verb that shows the cluster until it is stopped.
func (p *program) topCommand() *cobra.Command {
	interval := time.Second
	c := &cobra.Command{
		Use: "top", Short: "Watch the cluster live",
		Long: "top shows the status of the cluster and keeps it up to date: findings, throughput, latencies,\n" +
			"refusals and errors of the last minutes, the nodes, and recent events. q or Ctrl-C quits.\n\n" +
			"Where the output is no terminal, one picture is printed, after one interval.",
		Example: "  licensectl top\n  licensectl top -s 10.0.0.7:8080 --interval 5s",
		Args:    exactArgs(),

		Annotations: map[string]string{textOnly: "; use cluster --output json"},
	}
	c.Flags().DurationVar(&interval, "interval", interval, "time between two readings")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if interval < 100*time.Millisecond {
			return usagef("--interval %v is less than 100ms", interval)
		}
		conn, err := p.dial()
		if err != nil {
			return err
		}
		return p.top(c.Context(), conn, interval)
	}
	return c
}

// top shows the cluster until it is told to stop. Everything on a terminal happens in
// bubbletea's loop; readings are commands of it, one at a time.
func (p *program) top(ctx context.Context, conn *connection, interval time.Duration) error {
	read := func() tea.Msg {
		ctx, cancel := p.call(ctx)
		defer cancel()
		res, err := conn.admin.GetCluster(ctx, &licensedv1.GetClusterRequest{})
		return topReading{res.GetCluster(), p.now(), err}
	}
	m := &topModel{read: read, now: p.now, interval: interval, server: p.server, width: p.width()}
	if m.width == 0 {
		return p.topOnce(ctx, m)
	}
	last, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithOutput(p.screen)).Run()
	if ctx.Err() != nil {
		return nil // Interrupted is how this ends.
	}
	if m, ok := last.(*topModel); ok && err == nil && m.status == nil {
		return m.err // It never answered.
	}
	return err
}

// topOnce prints one picture, of two readings: rates need a difference.
func (p *program) topOnce(ctx context.Context, m *topModel) error {
	for i := range 2 {
		if i > 0 {
			select {
			case <-ctx.Done():
				return errInterrupted
			case <-time.After(m.interval):
			}
		}
		if m.Update(m.read()); m.err != nil {
			return m.err
		}
	}
	_, err := lipgloss.Fprint(p.stdout, m.text()) // Without colours where the output has none.
	return err
}

// topReading is an answer of the cluster, and topTick asks for the next.
type (
	topReading struct {
		status *licensedv1.ClusterStatus
		at     time.Time
		err    error
	}
	topTick struct{}
)

// keptTop is the number of samples that are kept: as many as the widest terminal has columns.
const keptTop = 400

// topModel is what is shown. It implements tea.Model.
type topModel struct {
	read     func() tea.Msg
	now      func() time.Time
	interval time.Duration
	server   string

	width, height int // of the terminal; a width of 0 is no terminal
	status        *licensedv1.ClusterStatus
	at            time.Time
	samples       []clusterrates.Sample
	err           error // of the last reading
}

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return m.read }

// Update implements tea.Model.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		}
	case topReading:
		m.take(msg)
		// The next reading is asked for after this one came: a slow gateway is not asked
		// twice at a time.
		return m, tea.Tick(m.interval, func(time.Time) tea.Msg { return topTick{} })
	case topTick:
		return m, m.read
	}
	return m, nil
}

// take records a reading. A failed one leaves the last status on the screen, marked as
// old.
func (m *topModel) take(r topReading) {
	if m.err = r.err; r.err != nil {
		return
	}
	if m.status != nil && r.at.After(m.at) {
		m.samples = append(m.samples, clusterrates.Between(m.status, r.status, r.at, r.at.Sub(m.at)))
		if excess := len(m.samples) - keptTop; excess > 0 {
			m.samples = append(m.samples[:0], m.samples[excess:]...)
		}
	}
	m.status, m.at = r.status, r.at
}

// The colours are the terminal's own 16, so that its theme applies.
var (
	topBold  = lipgloss.NewStyle().Bold(true)
	topFaint = lipgloss.NewStyle().Faint(true)
	topGood  = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	topWarn  = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
	topBad   = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Color("1"))
)

// View implements tea.Model.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.text())
	v.AltScreen = true
	return v
}

// text is what is shown, with colours.
func (m *topModel) text() string {
	if m.status == nil {
		if m.err != nil {
			return topBad.Render("UNKNOWN: no status from "+m.server+": "+terminal.Escape(m.err.Error())) + "\n" +
				topFaint.Render("trying again; q quits") + "\n"
		}
		return topFaint.Render("asking "+m.server+" for the status of the cluster…") + "\n"
	}
	lines := append(m.head(), "")
	lines = append(lines, m.charts()...)
	lines = append(lines, "")
	lines = append(lines, m.nodes()...)
	lines = append(lines, m.lately(len(lines))...)
	limit := m.width
	for i := range lines {
		// Cut, not wrapped: a wrapped line would push the rest off the screen.
		if limit > 0 && lipgloss.Width(lines[i]) > limit {
			lines[i] = lipgloss.NewStyle().MaxWidth(limit).Render(lines[i])
		}
	}
	if m.height > 0 && len(lines) > m.height {
		lines = lines[:m.height]
	}
	return strings.Join(lines, "\n") + "\n"
}

// staleAfter is the age from which a reading is shown as old. A slow interval makes it longer.
const staleAfter = 5 * time.Second

// stale returns the age of the reading if it is old, else 0.
func (m *topModel) stale() time.Duration {
	if age := m.now().Sub(m.at); age > max(staleAfter, 3*m.interval) {
		return age.Round(time.Second)
	}
	return 0
}

// head returns the lines with the level and the findings. An old status has no level,
// whatever it said.
func (m *topModel) head() []string {
	s := m.status
	lines := []string{topBold.Render("cluster "+terminal.Escape(s.Name)) +
		topFaint.Render(fmt.Sprintf("  %s, as seen by %s at %s UTC",
			terminal.Count(s.Shards, "shard", "shards"), terminal.Escape(s.Reporter), clock(s.AsOf)))}
	old := m.stale()
	switch {
	case m.err != nil:
		lines = append(lines,
			topBad.Render(fmt.Sprintf("UNKNOWN: no answer since then: %s", terminal.Escape(m.err.Error()))))
	case old > 0:
		lines = append(lines, topBad.Render(fmt.Sprintf("UNKNOWN: the last status is %v old", old)))
	case s.Level == licensedv1.ClusterLevel_CLUSTER_LEVEL_OK:
		lines = append(lines, topGood.Render(headline(s)))
	case s.Level == licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL:
		lines = append(lines, topBad.Render(levelWord(s)))
	default:
		lines = append(lines, topWarn.Render(levelWord(s)))
	}
	for _, w := range s.Warnings {
		style := topWarn
		if w.Level == licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL {
			style = topBad
		}
		lines = append(lines, style.Render("! "+terminal.Escape(w.Text)))
	}
	return append(lines, topFaint.Render("shards: ")+strings.Join(shardCounts(s), ", "))
}

// charts returns the lines with the figures of now and a small chart of the last minutes
// each.
func (m *topModel) charts() []string {
	var latest clusterrates.Sample
	if n := len(m.samples); n > 0 {
		latest = m.samples[n-1]
	}
	ms := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%.2f ms", *v)
	}
	line := func(name, value string, of func(*clusterrates.Sample) float64) string {
		return fmt.Sprintf("%-10s %-34s %s", name, value, topGood.Render(m.spark(of)))
	}
	p99 := func(s *clusterrates.Sample) float64 {
		if s.P99 == nil {
			return 0
		}
		return *s.P99
	}
	return []string{
		line("commands", fmt.Sprintf("%.1f/s, queries %.1f/s", latest.Commands, latest.Queries),
			func(s *clusterrates.Sample) float64 { return s.Commands }),
		line("latency", fmt.Sprintf("p50 %s, p99 %s", ms(latest.P50), ms(latest.P99)), p99),
		line("refused", fmt.Sprintf("%.1f/s%s", latest.Refused, worst(latest.Refusals)),
			func(s *clusterrates.Sample) float64 { return s.Refused }),
		line("errors", fmt.Sprintf("%.1f/s%s", latest.Failed, worst(latest.Errors)),
			func(s *clusterrates.Sample) float64 { return s.Failed }),
		line("memory", fmt.Sprintf("%.1f/s read, %.1f/s left", latest.Recoveries, latest.Passivations),
			func(s *clusterrates.Sample) float64 { return s.Recoveries }),
		line("archive", fmt.Sprintf("%v behind", time.Duration(latest.Lag*float64(time.Second)).Round(time.Second)),
			func(s *clusterrates.Sample) float64 { return s.Lag }),
	}
}

// worst names the largest of several figures; the first by name, if several are.
func worst(by map[string]float64) string {
	name := ""
	for n, v := range by {
		if name == "" || v > by[name] || v == by[name] && n < name {
			name = n
		}
	}
	if name == "" {
		return ""
	}
	return ", most by " + name
}

// sparks are the eight heights of a column.
var sparks = []rune("▁▂▃▄▅▆▇█")

// spark draws samples, the newest to the right, in what is left of the line; the highest
// fills the line.
func (m *topModel) spark(of func(*clusterrates.Sample) float64) string {
	width := 60
	// 46 columns are taken by the name and the value before the chart.
	if m.width > 0 {
		width = max(0, m.width-46)
	}
	samples := m.samples[max(0, len(m.samples)-width):]
	most := 0.0
	for i := range samples {
		most = max(most, of(&samples[i]))
	}
	var b strings.Builder
	for i := range samples {
		level := 0
		if most > 0 {
			level = int(of(&samples[i]) / most * float64(len(sparks)-1))
		}
		b.WriteRune(sparks[level])
	}
	return b.String()
}

// nodes returns the table of the members, coloured by their states.
func (m *topModel) nodes() []string {
	var b strings.Builder
	t := terminal.NewTable(&b, 0, "NODE", "ROLES", "STATE", ">LEASE", ">SHARDS", ">MOVING", ">CUSTOMERS", ">COMMANDS/S",
		">WAITING", ">CORES", ">MEMORY", "VERSION")
	for _, n := range m.status.Nodes {
		t.Add(m.node(n)...)
	}
	if t.Flush() != nil || len(m.status.Nodes) == 0 {
		return []string{topFaint.Render("no nodes are known")}
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	// The first line has the titles; the others are in the order of the nodes.
	lines[0] = topFaint.Render(lines[0])
	for i, n := range m.status.Nodes {
		switch n.State {
		case licensedv1.NodeState_NODE_STATE_READY, licensedv1.NodeState_NODE_STATE_LEFT,
			licensedv1.NodeState_NODE_STATE_DRAINING,
			licensedv1.NodeState_NODE_STATE_DRAINED:
		case licensedv1.NodeState_NODE_STATE_STARTING:
			lines[i+1] = topWarn.Render(lines[i+1])
		default:
			lines[i+1] = topBad.Render(lines[i+1])
		}
	}
	return lines
}

// node returns the cells of a member: some of those of licensectl cluster, and what the
// samples add.
func (m *topModel) node(n *licensedv1.NodeStatus) []string {
	row := nodeRow(n)
	cores := "-"
	if k := len(m.samples); k > 0 {
		if busy, ok := m.samples[k-1].Cores[clusterrates.Key(n)]; ok {
			cores = fmt.Sprintf("%.2f", busy)
		}
	}
	return []string{
		n.Name, row[1], row[2], row[5], row[6], row[7], row[8], row[9], fmt.Sprint(n.RequestsWaiting), cores,
		size(n.MemoryBytes), n.Version,
	}
}

// lately returns the last events, as many as there is room for below the lines used so
// far.
func (m *topModel) lately(used int) []string {
	room := shownHappenings
	if m.height > 0 {
		room = min(room, m.height-used-2)
	}
	if room <= 0 || len(m.status.Happenings) == 0 {
		return nil
	}
	lines := []string{"", topFaint.Render("recent events")}
	for _, h := range m.status.Happenings[:min(room, len(m.status.Happenings))] {
		lines = append(lines, "  "+clock(h.At)+"  "+terminal.Escape(h.Text))
	}
	return lines
}
