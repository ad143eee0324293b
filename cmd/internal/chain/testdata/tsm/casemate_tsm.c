// SPDX-License-Identifier: GPL-2.0
/*
 * For test guests alone: a provider of the kernel's TSM reports without a secure
 * processor behind it. What configfs asks of it goes to a program of the guest, which
 * reads 64 bytes of report data from /dev/testpsp and writes the answer there: an
 * SEV-SNP report and behind it the certificate table.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/tsm.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define ASKED_SIZE 64
#define REPORT_SIZE 1184
#define ANSWER_MAX 65536
#define PATIENCE (30 * HZ)

static DEFINE_MUTEX(turn);	/* one report at a time */
static DEFINE_MUTEX(mailbox);	/* guards what follows */
static u8 asked[ASKED_SIZE];
static bool is_asked;
static void *answer;
static size_t answer_size;
static DECLARE_WAIT_QUEUE_HEAD(news);

static int ask(struct tsm_report *report)
{
	void *got;
	size_t size;

	mutex_lock(&mailbox);
	kvfree(answer);
	answer = NULL;
	memcpy(asked, report->desc.inblob, ASKED_SIZE);
	is_asked = true;
	mutex_unlock(&mailbox);
	wake_up_all(&news);
	if (!wait_event_timeout(news, READ_ONCE(answer), PATIENCE))
		return -ETIMEDOUT;
	mutex_lock(&mailbox);
	got = answer;
	size = answer_size;
	answer = NULL;
	mutex_unlock(&mailbox);

	report->outblob = kvmemdup(got, REPORT_SIZE, GFP_KERNEL);
	report->outblob_len = REPORT_SIZE;
	if (size > REPORT_SIZE) {
		report->auxblob = kvmemdup(got + REPORT_SIZE, size - REPORT_SIZE, GFP_KERNEL);
		report->auxblob_len = size - REPORT_SIZE;
	}
	kvfree(got);
	return report->outblob && (size == REPORT_SIZE || report->auxblob) ? 0 : -ENOMEM;
}

static int report_new(struct tsm_report *report, void *data)
{
	int err;

	if (report->desc.inblob_len != ASKED_SIZE)
		return -EINVAL;
	mutex_lock(&turn);
	err = ask(report);
	mutex_unlock(&turn);
	return err;
}

static bool attr_visible(int n)
{
	return n == TSM_REPORT_GENERATION || n == TSM_REPORT_PROVIDER ||
	       n == TSM_REPORT_PRIVLEVEL || n == TSM_REPORT_PRIVLEVEL_FLOOR;
}

static bool bin_attr_visible(int n)
{
	return n == TSM_REPORT_INBLOB || n == TSM_REPORT_OUTBLOB || n == TSM_REPORT_AUXBLOB;
}

static const struct tsm_ops provider = {
	.name = "sev_guest",
	.report_new = report_new,
	.report_attr_visible = attr_visible,
	.report_bin_attr_visible = bin_attr_visible,
};

static ssize_t psp_read(struct file *file, char __user *to, size_t size, loff_t *at)
{
	u8 copy[ASKED_SIZE];
	int err = wait_event_interruptible(news, READ_ONCE(is_asked));

	if (err)
		return err;
	if (size < ASKED_SIZE)
		return -EINVAL;
	mutex_lock(&mailbox);
	memcpy(copy, asked, ASKED_SIZE);
	is_asked = false;
	mutex_unlock(&mailbox);
	return copy_to_user(to, copy, ASKED_SIZE) ? -EFAULT : ASKED_SIZE;
}

static ssize_t psp_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	void *copy;

	if (size < REPORT_SIZE || size > ANSWER_MAX)
		return -EINVAL;
	copy = vmemdup_user(from, size);
	if (IS_ERR(copy))
		return PTR_ERR(copy);
	mutex_lock(&mailbox);
	kvfree(answer);
	answer_size = size;
	WRITE_ONCE(answer, copy);
	mutex_unlock(&mailbox);
	wake_up_all(&news);
	return size;
}

static const struct file_operations psp_operations = {
	.owner = THIS_MODULE,
	.read = psp_read,
	.write = psp_write,
};

static struct miscdevice psp = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "testpsp",
	.mode = 0600,
	.fops = &psp_operations,
};

static int __init start(void)
{
	int err = misc_register(&psp);

	if (err)
		return err;
	err = tsm_register(&provider, NULL);
	if (err)
		misc_deregister(&psp);
	return err;
}

static void __exit stop(void)
{
	tsm_unregister(&provider);
	misc_deregister(&psp);
	kvfree(answer);
}

module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("TSM reports by a program of a test guest");
