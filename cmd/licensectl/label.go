package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// deviceLabel has the flags of the verbs that give a device a name and a type.
type deviceLabel struct{ name, ofType string }

// typePrefix is what the names of the types begin with.
const typePrefix = "DEVICE_TYPE_"

// deviceTypes returns the types that a device can be given, in the order of their numbers.
func deviceTypes() (names []string) {
	numbers := make([]int32, 0, len(licensedv1.DeviceType_name))
	for n := range licensedv1.DeviceType_name {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers[1:] { // The first is "unspecified".
		names = append(names, strings.ReplaceAll(enumWord(licensedv1.DeviceType_name[n], typePrefix), "_", "-"))
	}
	return names
}

// bind adds the flags.
func (l *deviceLabel) bind(c *cobra.Command) {
	types := deviceTypes()
	c.Flags().StringVar(&l.name, "device-name", "", "`NAME` of the device for people (default: as it is)")
	c.Flags().StringVar(&l.ofType, "device-type", "",
		"`TYPE` of the device: "+strings.Join(types, ", ")+" (default: as it is)")
	err := c.RegisterFlagCompletionFunc("device-type",
		cobra.FixedCompletions(types, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // The flag exists.
	}
}

// kind returns the type. Errors: one that there is not.
func (l *deviceLabel) kind() (licensedv1.DeviceType, error) {
	if l.ofType == "" {
		return 0, nil
	}
	types := deviceTypes()
	if i := slices.Index(types, l.ofType); i >= 0 {
		name := typePrefix + strings.ToUpper(strings.ReplaceAll(l.ofType, "-", "_"))
		return licensedv1.DeviceType(licensedv1.DeviceType_value[name]), nil
	}
	return 0, usagef("--device-type %s is none of %s", l.ofType, strings.Join(types, ", "))
}
