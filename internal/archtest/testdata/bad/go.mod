// A module in which every rule of archtest is broken. It need not build.
module licensed

go 1.26.0
