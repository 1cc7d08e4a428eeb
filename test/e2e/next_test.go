package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"licensed/internal/harness"
	"licensed/internal/overlay"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
)

// nextVersion is what the next release says that it is.
const nextVersion = "v99.0.0-next"

// nextRelease returns what a release may change while the one before continues working beside it: a field in
// every message, a command with its method, event and form of snapshots, questions and news between members.
func nextRelease(t *testing.T) []overlay.Edit {
	file := func(name string) string {
		b, err := os.ReadFile(filepath.Join("testdata", "next", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	cluster := overlay.Generate(t, clusterv1.File_licensed_cluster_v1_cluster_proto, nextClusterProtocol)
	commands := overlay.Generate(t, licensedv1.File_licensed_v1_commands_proto, nextCommands)
	events := overlay.Generate(t, licensedv1.File_licensed_v1_events_proto, nextEvents)
	api := overlay.Generate(t, licensedv1.File_licensed_v1_license_service_proto, nextAPI)
	status := overlay.Generate(t, licensedv1.File_licensed_v1_cluster_status_proto, addLaterText)
	return []overlay.Edit{
		{File: "messages/clusterv1/cluster.pb.go", To: cluster},
		{File: "messages/licensedv1/commands.pb.go", To: commands},
		{File: "messages/licensedv1/events.pb.go", To: events},
		{File: "messages/licensedv1/license_service.pb.go", To: api},
		{File: "messages/licensedv1/cluster_status.pb.go", To: status},

		{File: "internal/member/later.go", To: file("member.go")},
		{File: "internal/member/member.go", From: "\t\tnow := m.meta()\n", To: "\t\tm.later()\n\t\tnow := m.meta()\n"},
		{
			File: "internal/member/member.go",
			From: "\tif m.gateway() {\n\t\tmeta.Roles",
			To: "\tmeta.LaterText, meta.Roles = \"later\", append(meta.Roles, clusterv1.Role_ROLE_LATER)\n" +
				"\tif m.gateway() {\n\t\tmeta.Roles",
		},
		{
			File: "internal/member/status.go",
			From: "\tself.Happenings = status.FirstHand(",
			To:   "\tself.LaterText, s.LaterText = \"later\", \"later\"\n\tself.Happenings = status.FirstHand(",
		},
		{File: "cluster/transport/later.go", To: file("transport.go")},
		{
			File: "cluster/transport/transport.go",
			From: "\tif deadline, ok := ctx.Deadline(); ok {\n\t\tm.TimeoutMicros",
			To:   "\tm.LaterText = \"later\"\n\tif deadline, ok := ctx.Deadline(); ok {\n\t\tm.TimeoutMicros",
		},
		{
			File: "cluster/transport/handle.go",
			From: "\th, codec := t.config.Handler, t.config.Codec\n",
			To:   "\th, codec := t.config.Handler, t.config.Codec\n\tr.LaterText = \"later\"\n",
		},
		{
			File: "cluster/transport/wire.go",
			From: "\treturn &clusterv1.Command{\n",
			To:   "\treturn &clusterv1.Command{LaterText: \"later\",\n",
		},
		{
			File: "cluster/news.go",
			From: "\tm := &clusterv1.Shard{Id",
			To:   "\tm := &clusterv1.Shard{LaterText: \"later\", Id",
		},

		{File: "gateway/later.go", To: file("gateway.go")},
		{
			File: "gateway/gateway.go",
			From: "\tif g.config.HistoryReader != nil {\n",
			To: "\tmount(pauseDownloads, connect.NewUnaryHandler(pauseDownloads, newService(g).PauseDownloads, " +
				"withInterceptor...))\n\tif g.config.HistoryReader != nil {\n",
		},
		{
			File: "gateway/fingerprint.go",
			From: "\t}\n\tif issuedAt != nil {",
			To: "\tcase *licensedv1.Command_PauseDownloads:\n" +
				"\t\tb = b.number(200).text(1, c.PauseDownloads.Reason)\n\t}\n\tif issuedAt != nil {",
		},
		{File: "gateway/service.go", From: "\treturn result{Outcome: o, sequence", To: "\tif o.License != nil {\n" +
			"\t\to.License.LaterText = \"later\"\n\t}\n\treturn result{Outcome: o, sequence"},

		{
			File: "messages/event.go",
			From: "read[licensedv1.DevicesSelected],\n",
			To: "read[licensedv1.DevicesSelected],\n" +
				"\t\"DownloadsPaused/1\":   read[licensedv1.DownloadsPaused],\n",
		},
		{File: "messages/event.go", From: "\tdefault:\n\t\treturn \"\"\n",
			To: "\tcase *licensedv1.DownloadsPaused:\n\t\treturn \"DownloadsPaused/1\"\n\tdefault:\n\t\treturn \"\"\n"},
		{File: "actors/license/foreign.go", From: "\tcase *licensedv1.Command_ChangePlan:\n",
			To: "\tcase *licensedv1.Command_PauseDownloads:\n\t\treturn nil\n\tcase *licensedv1.Command_ChangePlan:\n"},
		{
			File: "actors/license/decide.go",
			From: "\tdefault:\n\t\tpanic(fmt.Sprintf(\"license: no command, but %T\", c))\n",
			To: "\tcase *licensedv1.Command_PauseDownloads:\n\t\td.add(customer, d.state.order, " +
				"&licensedv1.DownloadsPaused{Reason: c.PauseDownloads.GetReason()})\n\tdefault:\n" +
				"\t\tpanic(fmt.Sprintf(\"license: no command, but %T\", c))\n",
		},
		{
			File: "actors/license/decide.go",
			From: "&licensedv1.LicenseAcquired{\n",
			To:   "&licensedv1.LicenseAcquired{LaterText: \"later\",\n",
		},
		{
			File: "actors/license/evolve.go",
			From: "\tdefault:\n\t\tif o := occurrenceOf",
			To: "\tcase *licensedv1.DownloadsPaused:\n\t\ts.paused, s.order = true, e.Order+1\n\tdefault:\n" +
				"\t\tif o := occurrenceOf",
		},
		{File: "actors/license/state.go", From: "\tplan   string\n", To: "\tplan   string\n\tpaused bool\n"},
		{
			File: "actors/license/outcome.go",
			From: "\t\tcase *licensedv1.PlanChanged:\n",
			To: "\t\tcase *licensedv1.DownloadsPaused:\n\t\t\treturn append(b, outcomeOther, 99)\n" +
				"\t\tcase *licensedv1.PlanChanged:\n",
		},
		{
			File: "actors/license/outcome.go",
			From: "\t\tcase otherException:\n",
			To:   "\t\tcase 99:\n\t\tcase otherException:\n",
		},
		{
			File: "actors/license/kind.go",
			From: "\tif s.Mapper != snapshotMapper && s.Mapper != thirdMapper && s.Mapper != formerMapper {\n",
			To: "\tif s.Mapper != snapshotMapper && s.Mapper != thirdMapper && s.Mapper != formerMapper && " +
				"s.Mapper != \"LicenseSnapshot/next\" {\n",
		},
		{
			File: "actors/license/kind.go",
			From: "\treturn &aggregate{kind: k, id: id, state: state}, nil\n",
			To: "\tstate.paused = s.Mapper == \"LicenseSnapshot/next\"\n" +
				"\treturn &aggregate{kind: k, id: id, state: state}, nil\n",
		},
		{
			File: "actors/license/kind.go",
			From: "\treturn actors.Snapshot{\n\t\tMapper: a.state.mapper(),\n",
			To: "\tmapper := a.state.mapper()\n\tif a.state.paused {\n\t\tmapper = \"LicenseSnapshot/next\"\n\t}\n" +
				"\treturn actors.Snapshot{\n\t\tMapper: mapper,\n",
		},
	}
}

// laterText is the number of the field that every message has in the next release.
const laterText = 200

func addLaterText(file *descriptorpb.FileDescriptorProto) {
	for _, m := range file.MessageType {
		overlay.AddField(m, "", "string", "later_text", laterText)
	}
}

// message returns a message by its name.
func message(file *descriptorpb.FileDescriptorProto, name string) *descriptorpb.DescriptorProto {
	for _, m := range file.MessageType {
		if m.GetName() == name {
			return m
		}
	}
	m := &descriptorpb.DescriptorProto{Name: &name}
	file.MessageType = append(file.MessageType, m)
	return m
}

func nextClusterProtocol(file *descriptorpb.FileDescriptorProto) {
	addLaterText(file)
	overlay.AddField(message(file, "Request"), "body", "string", "later", 201)
	for _, e := range file.EnumType {
		if e.GetName() == "Role" {
			e.Value = append(e.Value,
				&descriptorpb.EnumValueDescriptorProto{Name: proto.String("ROLE_LATER"), Number: proto.Int32(200)})
		}
	}
}

func nextCommands(file *descriptorpb.FileDescriptorProto) {
	addLaterText(file)
	overlay.AddField(message(file, "PauseDownloads"), "", "string", "reason", 1)
	overlay.AddField(message(file, "Command"), "command", ".licensed.v1.PauseDownloads", "pause_downloads", 201)
}

func nextEvents(file *descriptorpb.FileDescriptorProto) {
	addLaterText(file)
	overlay.AddField(message(file, "DownloadsPaused"), "", "string", "reason", 1)
}

func nextAPI(file *descriptorpb.FileDescriptorProto) {
	addLaterText(file)
	request, response := message(file, "PauseDownloadsRequest"), message(file, "PauseDownloadsResponse")
	overlay.AddField(request, "", "string", "customer_id", 1)
	overlay.AddField(request, "", "string", "command_id", 2)
	overlay.AddField(request, "", ".google.protobuf.Timestamp", "issued_at", 3)
	overlay.AddField(request, "", "bool", "validate_only", 4)
	overlay.AddField(request, "", "string", "reason", 5)
	overlay.AddField(response, "", "uint64", "sequence", 1)
	overlay.AddField(response, "", "bool", "duplicate", 2)
	file.Service[0].Method = append(file.Service[0].Method, &descriptorpb.MethodDescriptorProto{
		Name: proto.String("PauseDownloads"), InputType: proto.String(".licensed.v1.PauseDownloadsRequest"),
		OutputType: proto.String(".licensed.v1.PauseDownloadsResponse"),
	})
}

// TestNextReleaseFits: the edits that make the next release fit the code, which go test -short finds out too.
func TestNextReleaseFits(t *testing.T) { overlay.File(t, "../..", nextRelease(t)) }

// buildNext builds the next release of the daemon, in the background, and returns what waits for it and
// tells where it is.
func buildNext(t *testing.T) (program func() string) {
	path := filepath.Join(t.TempDir(), "licensed-next")
	arguments := []string{"build", "-overlay", overlay.File(t, "../..", nextRelease(t)), "-ldflags",
		"-X licensed/internal/version.release=" + nextVersion, "-o", path}
	if harness.Race {
		arguments = append(arguments, "-race")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(arguments, "licensed/cmd/licensed")...)
	var out []byte
	var err error
	built := make(chan struct{})
	go func() {
		out, err = cmd.CombinedOutput()
		close(built)
	}()
	t.Cleanup(func() { <-built })
	return func() string {
		t.Helper()
		if <-built; err != nil {
			t.Fatalf("build the next release: %v\n%s", err, out)
		}
		return path
	}
}
