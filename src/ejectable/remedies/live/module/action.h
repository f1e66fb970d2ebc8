/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done about a call that would go wrong, one of three. Each ends as struct kprobe's pre_handler does: not 0
 * where the function is not to be run.
 *
 * EJECTABLE_FILL: a pointer is empty that the function calls. It gets a function of ours at the entry, and is empty
 * again at the end. Two probes at one address: the kprobe fills, and the kretprobe empties. A kretprobe needs a free
 * instance for each call that has not returned; a kprobe needs none. So if the instances ever ran out, the call would
 * go through all the same: only the pointer would stay filled, and this module pinned, until the next call for that
 * object. Each filled pointer holds a reference on this module. While there is one, rmmod is refused, at once; and once
 * the module is on its way out, it can fill no more (try_module_get() fails). So no pointer into it is left behind, and
 * unloading waits for nobody: not for a device's lock, not for a thread that an Oops has killed in the middle of the
 * function; that one keeps its reference for ever.
 *
 * EJECTABLE_RETURN: the function is not run, and its caller gets this value.
 *
 * EJECTABLE_TABLE: the function looks up its records in a table in which some stand elsewhere: each is put where it is
 * looked for. Nothing of ours is left in it.
 */
#ifdef EJECTABLE_FILL
/* Calls that may be under way at the same time before pointers stay filled: devices that go at once. */
#define INSTANCES 256

static const struct place filled = EJECTABLE_FILL;

/* The member's own type, to the letter: kCFI compares a hash of it with one in front of the function. */
typedef EJECTABLE_ANSWER_TYPE (*answer_fn)(EJECTABLE_ANSWER_ARGUMENTS);

static EJECTABLE_ANSWER_TYPE ejectable_answer(EJECTABLE_ANSWER_ARGUMENTS)
{
	return EJECTABLE_ANSWER;
}

static bool ejectable_is_answer(u64 value)
{
	return value == (unsigned long)ejectable_answer;
}

static answer_fn *ejectable_filled(unsigned long argument)
{
	unsigned long address;

	return ejectable_reach(&filled, argument, &address) ? (answer_fn *)address : NULL;
}

static int ejectable_do(unsigned long argument, struct pt_regs *regs, bool *done)
{
	answer_fn *member = ejectable_filled(argument);

	if (!member || !try_module_get(THIS_MODULE))
		return 0;
	*done = !cmpxchg(member, (answer_fn)NULL, ejectable_answer);
	if (!*done)
		module_put(THIS_MODULE);
	return 0;
}

/* Which of the calls have to be followed to their end; 0 follows. Before or after ejectable_do(), as it comes. */
static int ejectable_entry(struct kretprobe_instance *call, struct pt_regs *regs)
{
	unsigned long argument = regs_get_kernel_argument(regs, 0);
	enum state state = ejectable_examine(argument);
	answer_fn *member = state == WRONG || state == FINE ? ejectable_filled(argument) : NULL;

	*(answer_fn **)call->data = member;
	return !member || (state == FINE && READ_ONCE(*member) != ejectable_answer);
}

/* At its end. */
static int ejectable_empty(struct kretprobe_instance *call, struct pt_regs *unused)
{
	answer_fn *member = *(answer_fn **)call->data;

	if (cmpxchg(member, ejectable_answer, (answer_fn)NULL) == ejectable_answer)
		module_put(THIS_MODULE);
	return 0;
}
#else
static bool ejectable_is_answer(u64 value)
{
	return false;
}
#endif

#ifdef EJECTABLE_RETURN
/* That there is one keeps the kprobe from becoming a jump, which cannot leave the function (kernel/fail_function.c). */
static void ejectable_after(struct kprobe *unused, struct pt_regs *regs, unsigned long flags)
{
}

#ifdef CONFIG_X86
#ifndef ANNOTATE_NOENDBR
#define ANNOTATE_NOENDBR /* before v5.18 there is no IBT */
#endif
/* As just_return_func() of arch/x86/lib/error-inject.c, which no module may use. */
void ejectable_return(void);
asm(".pushsection .text, \"ax\"\n"
    ".type ejectable_return, @function\n"
    ".globl ejectable_return\n"
    "ejectable_return:\n"
    ANNOTATE_NOENDBR
    ASM_RET
    ".size ejectable_return, .-ejectable_return\n"
    ".popsection\n");
#endif

static int ejectable_do(unsigned long argument, struct pt_regs *regs, bool *done)
{
	*done = true;
	regs_set_return_value(regs, EJECTABLE_RETURN);
#ifdef CONFIG_X86
	instruction_pointer_set(regs, (unsigned long)ejectable_return);
#else
	/* The place that is returned to is no landing pad (BTI). */
	regs->pstate &= ~PSR_BTYPE_MASK;
	instruction_pointer_set(regs, procedure_link_pointer(regs));
#endif
	return 1;
}
#endif

#ifdef EJECTABLE_TABLE
#define MOST_RECORDS 4096

static const struct {
	struct place list, table;	/* a list's head; a pointer to the table of pointers */
	int node, index;		/* offsets into what is on the list: its node, and its index in the table (u32) */
	int key;			/* offset into a record: the pointer to what it belongs to */
} looked_up = EJECTABLE_TABLE;

/* The pointer at this address; NULL where there is none. */
static noinline unsigned long ejectable_follow(unsigned long address)
{
	unsigned long found = 0;

	return copy_from_kernel_nofault(&found, (void *)address, sizeof(found)) ? 0 : found;
}

/* Put the record of `owner` into slot `index`, from a later one; false where it is there already, or nowhere. */
static noinline bool ejectable_put(unsigned long *table, size_t size, u32 index, unsigned long owner)
{
	unsigned long found;
	size_t slot;

	for (slot = index; slot < size; slot++) {
		found = ejectable_follow((unsigned long)&table[slot]);
		if (!found || ejectable_follow(found + looked_up.key) != owner)
			continue;
		if (slot == index)
			return false;
		table[slot] = table[index];
		table[index] = found;
		return true;
	}
	return false;
}

static int ejectable_do(unsigned long argument, struct pt_regs *regs, bool *done)
{
	unsigned long head, at, owner;
	unsigned int records = 0;
	u64 table;
	u32 index;

	if (!ejectable_reach(&looked_up.list, argument, &head) || !ejectable_read(&looked_up.table, argument, &table))
		return 0;
	/* Each record that is looked for is in the table, so that none is read beyond its end; ksize() makes sure. */
	for (at = ejectable_follow(head); at && at != head && records < MOST_RECORDS; at = ejectable_follow(at), records++) {
		owner = at - looked_up.node;
		if (copy_from_kernel_nofault(&index, (void *)(owner + looked_up.index), sizeof(index)))
			break;
		if (ejectable_put((void *)(unsigned long)table, ksize((void *)(unsigned long)table) / sizeof(long), index, owner))
			*done = true;
	}
	return 0;
}
#endif
