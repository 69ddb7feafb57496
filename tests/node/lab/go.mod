module revguard.dev/lab

go 1.26
