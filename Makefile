# Installs vfio-early where no package of it is at hand:
#
#   make                 builds the program (as yourself)
#   make install         installs it, and what puts it into each kind of initrd (as root)
#   make uninstall       removes all that any `make install` can have put there
#
#   make install INITRD=dracut       for that generator alone; several in quotes, or none: INITRD=
#   make install-dracut              that generator's files alone
#   make install DESTDIR=/tmp/tree   into a tree of a packager
#   make dist                        archives the source as of the last commit
#
# With LIBKMOD_STATIC_DIR naming a folder that has libkmod.a, plain cargo builds it; without,
# `cargo xtask build` does, which installs what the build needs on Debian and its relatives. The man
# pages need scdoc.

# Not /usr/local, as others have it: dracut, initramfs-tools and mkinitcpio read /usr alone.
PREFIX ?= /usr
prefix ?= $(PREFIX)
exec_prefix ?= $(prefix)
bindir ?= $(exec_prefix)/bin
# Of the initrd's program, which the hooks put in there as the host's.
initrdprogramdir ?= $(exec_prefix)/lib/vfio-early
datarootdir ?= $(prefix)/share
mandir ?= $(datarootdir)/man
bashcompletiondir ?= $(datarootdir)/bash-completion/completions
fishcompletiondir ?= $(datarootdir)/fish/vendor_completions.d
zshcompletiondir ?= $(datarootdir)/zsh/site-functions

# What another program reads lies where that program looks, whatever the prefix.
systemdsystemunitdir ?= /usr/lib/systemd/system
systemdsystemgeneratordir ?= /usr/lib/systemd/system-generators
initramfstoolsdir ?= /usr/share/initramfs-tools
dracutmodulesdir ?= /usr/lib/dracut/modules.d
initcpiodir ?= /usr/lib/initcpio

INITRD ?= initramfs-tools dracut mkinitcpio

CARGO ?= cargo
INSTALL ?= install
SCDOC ?= scdoc

built := target/make
pages := $(basename $(notdir $(wildcard docs/man/*.scd)))

# What is installed, each as MODE:SOURCE:PLACE. Files below initrd/ keep their place in it.
below = $(foreach file,$(wildcard $(3)),$(1):$(file):$(4)/$(patsubst $(2)/%,%,$(file)))

program := 755:$(built)/vfio-early:$(bindir)/vfio-early \
  755:$(built)/vfio-early-initrd:$(initrdprogramdir)/vfio-early-initrd
man := $(foreach page,$(pages),\
  644:$(built)/$(page):$(mandir)/man$(subst .,,$(suffix $(page)))/$(page))
completions := \
  644:docs/completions/vfio-early.bash:$(bashcompletiondir)/vfio-early \
  644:docs/completions/vfio-early.fish:$(fishcompletiondir)/vfio-early.fish \
  644:docs/completions/_vfio-early:$(zshcompletiondir)/_vfio-early
systemd := $(call below,644,initrd/systemd,initrd/systemd/*.service,$(systemdsystemunitdir))
initramfs-tools := $(call below,755,initrd/initramfs-tools,\
  initrd/initramfs-tools/hooks/* initrd/initramfs-tools/scripts/*/*,$(initramfstoolsdir))
dracut := $(call below,755,initrd/dracut,initrd/dracut/90vfio-early/*,$(dracutmodulesdir))
mkinitcpio := $(call below,644,initrd/mkinitcpio,\
  initrd/mkinitcpio/install/* initrd/mkinitcpio/hooks/*,$(initcpiodir))

components := program man completions systemd initramfs-tools dracut mkinitcpio

# By this name systemd asks the program, before it starts anything, which of the units to start.
generator := $(systemdsystemgeneratordir)/vfio-early-generator

# Beside the initrd's program's, the one folder that is ours alone.
module := $(dracutmodulesdir)/90vfio-early

# Without the folder of cargo's sources in its messages, it has the same bytes wherever it is built.
remap = --config "target.'cfg(all())'.rustflags=[\"--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo\"]"

all: $(built)/vfio-early man

man: $(addprefix $(built)/,$(pages))

$(built)/vfio-early: Cargo.toml Cargo.lock build.rs $(wildcard .cargo/*) $(shell find src -name "*.rs")
ifdef LIBKMOD_STATIC_DIR
# To install, cargo takes a Cargo.lock that lacks a dependency, and adds to it what it likes.
	$(CARGO) tree --quiet --locked --package=vfio-early --edges=normal,build >/dev/null
	$(CARGO) install --quiet --locked --no-track --force $(remap) --path . --root $(built)/cargo
	$(INSTALL) -D -t $(built) $(built)/cargo/bin/vfio-early $(built)/cargo/bin/vfio-early-initrd
else
	binary=$$($(CARGO) xtask build) && $(INSTALL) -D -t $(built) "$$binary" "$$binary-initrd"
endif

# Both are of one build.
$(built)/vfio-early-initrd: $(built)/vfio-early ;

# For the Debian package, which has to find the link somewhere.
$(built)/vfio-early-generator:
	@mkdir -p $(@D)
	ln -sf ../../../bin/vfio-early $@

$(addprefix $(built)/,$(pages)): $(built)/%: docs/man/%.scd
	@mkdir -p $(@D)
	$(SCDOC) <$< >$@.new
	mv $@.new $@

install: install-program install-man install-completions install-systemd $(INITRD:%=install-%)

install-program: $(built)/vfio-early-initrd
install-man: $(addprefix $(built)/,$(pages))
# Their parts for initrds with systemd are its units.
install-dracut install-mkinitcpio: install-systemd

field = $(word $(1),$(subst :, ,$(2)))

# The units and hooks name the programs' places; others are put in.
define put
$(INSTALL) -D -m $(call field,1,$(1)) $(call field,2,$(1)) '$(DESTDIR)$(call field,3,$(1))'
$(if $(filter-out /usr/bin /usr/lib/vfio-early,$(bindir) $(initrdprogramdir)),\
$(if $(filter initrd/%,$(call field,2,$(1))),
sed -i 's|/usr/bin/vfio-early|$(bindir)/vfio-early|g; s|/usr/lib/vfio-early/|$(initrdprogramdir)/|g' \
  '$(DESTDIR)$(call field,3,$(1))'))

endef

$(components:%=install-%): install-%:
	$(foreach entry,$($*),$(call put,$(entry)))
	$(if $(filter systemd,$*),mkdir -p '$(DESTDIR)$(dir $(generator))')
	$(if $(filter systemd,$*),ln -sfr '$(DESTDIR)$(bindir)/vfio-early' '$(DESTDIR)$(generator)')

uninstall:
	rm -f $(foreach component,$(components),$(foreach entry,$($(component)),\
	  '$(DESTDIR)$(call field,3,$(entry))')) '$(DESTDIR)$(generator)'
	for ours in '$(DESTDIR)$(module)' '$(DESTDIR)$(initrdprogramdir)'; do \
	  [ ! -d "$$ours" ] || rmdir "$$ours"; done

# The source of the last commit, for the recipes in packaging/.
version := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$$/\1/p' Cargo.toml)
dist:
	@mkdir -p $(built)
	git archive --prefix=vfio-early-$(version)/ -o $(built)/vfio-early-$(version).tar.gz HEAD

clean:
	rm -rf $(built)

.PHONY: all man install uninstall dist clean $(components:%=install-%)
